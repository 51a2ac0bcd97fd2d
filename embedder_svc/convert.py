"""The command that converts the models of the settings before a server needs them: python -m embedder_svc.convert."""

import logging

from embedder_svc.loading import prepare
from embedder_svc.settings import Settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="ragmesh: %(message)s")
    settings = Settings()
    for model in settings.served:
        prepare(model.kind, settings.options(model))
