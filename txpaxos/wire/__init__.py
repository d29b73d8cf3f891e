"""Messages to bytes and back. This package knows neither sockets nor disks."""
