"""Settings of the process: compilation cache, memory."""
