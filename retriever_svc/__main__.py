"""The retriever's process."""

from meshkit.process import main
from retriever_svc.app import open_app
from retriever_svc.settings import Settings

if __name__ == "__main__":
    main(Settings, open_app)
