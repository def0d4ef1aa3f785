"""Pages of the web server, made of the templates in `templates/`."""
