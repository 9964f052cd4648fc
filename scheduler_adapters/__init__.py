"""How work is started, followed and stopped elsewhere. Knows nothing of the service."""
