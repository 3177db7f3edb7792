"""The command line: flags and rendering, one file a command. stdout is data, stderr is talk."""
