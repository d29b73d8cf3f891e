"""Messages to bytes and back. Knows neither sockets nor disks."""
