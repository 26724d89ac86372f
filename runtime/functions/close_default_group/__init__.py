"""Function behind a custom resource: closes the default security group of a VPC."""
