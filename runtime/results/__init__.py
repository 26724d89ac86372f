"""What an inference gives: its identity, its objects in the archive, and the answer that names them."""
