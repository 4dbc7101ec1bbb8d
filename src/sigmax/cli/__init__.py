"""The command line is the library, typed: `sigmax.cli.main.main` parses, calls and prints."""
