"""Recurrent cells of language models (section 2.1.1 and appendix of the paper)."""
