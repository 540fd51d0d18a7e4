"""The judge: what it is asked, and judges on other servers."""
