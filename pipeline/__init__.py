"""The shell: the plan, files, machines and commands around the three cores.

`plan.py` is the story and the first file to read; `rebuild.py` walks it; Ray lives in
`cluster.py` and `gang.py` alone.
"""
