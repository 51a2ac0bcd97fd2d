"""How a service of the mesh is run, called, watched and tested; it knows no service."""
