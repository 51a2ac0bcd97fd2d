"""Why the local mesh does not run, in words for the person who started it."""


class StartError(Exception):
    """The mesh cannot start; the text says why and, where there is one, what to do."""


class AlreadyRunningError(StartError):
    """Another process runs the mesh of this data folder."""
