"""What `apiary` does, one module for each group of commands; pipelines/cli.py puts them together.

Does not belong here: work. A command reads its options, calls a part of the program and prints the result.
"""
