"""What a person drives the platform with: the `monai-aws` command, and the same calls for notebooks.

Each module is one piece of work as a plain function on a `Deployment`, and `workbench.main` is the command
line over them. A notebook calls the same ones:

    from workbench.compare import compare
    from workbench.datasets.make import Division, make_dataset
    from workbench.deployment import Deployment
    from workbench.environment import load_environment
    from workbench.session import Session
    from workbench.training.request import TrainingRequest
    from workbench.training.train import train

    deployment = Deployment(Session(load_environment("dev")))
    sql = "SELECT * FROM series WHERE ..."
    data = make_dataset(deployment, sql, name="lungs", division=Division(test=0.2))
    result = train(deployment, TrainingRequest(bundle="lung-segmentation", data=data.uri), progress=print)
    print(result.evaluation.lines(), compare(deployment, task="lung-segmentation").table())
"""
