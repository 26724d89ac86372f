"""How every function works off a batch of SQS messages. Carried in the package of each function that does."""
