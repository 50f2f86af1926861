"""Independent implementations that the tests compare lensjax with."""
