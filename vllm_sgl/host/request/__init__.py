"""One request at the server's side: its outputs, its model's name, batch files, whether engines live."""
