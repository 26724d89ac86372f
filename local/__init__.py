"""The embedded cloud: AWS on one machine, for the demo and the tests.

MiniStack is wrapped with the services and CloudFormation types that it lacks. Started as a program, `python
-m local`.
"""
