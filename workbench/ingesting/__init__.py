"""`monai-aws ingest`: what was given, what of it goes up, and what became of it, kept in a journal.

given files -> scanning (headers, hashes) -> settling (duplicates, conflicts, what is in already) -> chunks ->
upload -> import job -> manifest -> ledger. Every step is written to the journal before the next begins, so an
ingest goes on where it was broken off.
"""
