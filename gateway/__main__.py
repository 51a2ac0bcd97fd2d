"""The gateway's process: `python -m gateway`."""

from gateway.app import open_app
from gateway.settings import Settings
from meshkit.process import main

if __name__ == "__main__":
    main(Settings, open_app)
