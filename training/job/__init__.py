"""SageMaker's container contract: what a job is told, where it runs, how it says that it failed."""
