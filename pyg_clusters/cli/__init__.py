"""The command line: it parses options, calls the function of the verb and prints its result."""
