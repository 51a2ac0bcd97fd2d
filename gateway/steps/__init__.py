"""The steps of an answer's course: each takes the course on and says which state comes next."""
