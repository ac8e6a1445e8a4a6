-- The tables of python-raven as it made them, where they are not there yet.
-- So an old database and a new one take the same steps from here on.

CREATE TABLE IF NOT EXISTS schema_version (
  version INT NOT NULL PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  applied TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS instantaneous_demand (
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  demand INT NOT NULL,
  multiplier INT NOT NULL,
  divisor INT NOT NULL,
  run TEXT NOT NULL,
  hash VARCHAR(100) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS run_info (
  name VARCHAR(100) NOT NULL,
  hash VARCHAR(100) NOT NULL,
  meter_id VARCHAR(100) NOT NULL,
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB;
