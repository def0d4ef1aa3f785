"""airunner: any command in any Git repository, on any number of machines, with nothing lost."""
