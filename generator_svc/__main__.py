"""The generator's process."""

from generator_svc.app import open_app
from generator_svc.settings import Settings
from meshkit.process import main

if __name__ == "__main__":
    main(Settings, open_app)
