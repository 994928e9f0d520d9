"""Projects of plugin authors: the project file, new projects, builds."""
