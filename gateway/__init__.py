"""The gateway: the course of an answer, sessions, feedback and the OpenAI-compatible surface."""
