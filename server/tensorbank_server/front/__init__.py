"""The front of the service: connections, bodies, and what every request passes, whatever it asks for."""
