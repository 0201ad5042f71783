"""SGL over HTTP: flags on the command line, keys and reports of requests."""
