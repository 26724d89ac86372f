"""What a person drives the platform with: the `monai-aws` command, and the same calls for notebooks.

Each module is one piece of work (ingest, query, dataset, train, approve, predict, show) as a plain function
on a `Session` and a `Deployment`; `workbench.main` is the command line over them.
"""
