"""Named complete specs, one YAML file each; the first line tells its purpose. `jobs.specfile` reads them."""
