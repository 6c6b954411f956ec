"""Scripts that time mmjax beside its peers; see README.md here."""
