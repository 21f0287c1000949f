"""The command line: options to a job, a job to its run."""
