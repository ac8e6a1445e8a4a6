-- Demand and registers by 5 minutes, hour and day (UTC), kept when the rows themselves are not.

CREATE TABLE IF NOT EXISTS demand_rollup (
  period_s INT UNSIGNED NOT NULL COMMENT '300, 3600 or 86400',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'empty if unknown',
  meter VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'empty if unknown',
  start TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  readings BIGINT UNSIGNED NOT NULL,
  sum_kw DECIMAL(38, 9) NOT NULL,
  min_kw DECIMAL(28, 9) NOT NULL,
  max_kw DECIMAL(28, 9) NOT NULL,
  mean_kw DECIMAL(28, 9) GENERATED ALWAYS AS (sum_kw / readings) VIRTUAL,
  PRIMARY KEY (period_s, node, meter, start)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS energy_rollup (
  period_s INT UNSIGNED NOT NULL COMMENT '300, 3600 or 86400',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  meter VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'empty if unknown',
  start TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  readings BIGINT UNSIGNED NOT NULL,
  delivered_kwh_min DECIMAL(34, 9) NULL COMMENT 'register at the first reading of the period',
  delivered_kwh_max DECIMAL(34, 9) NULL COMMENT 'and at the last',
  received_kwh_min DECIMAL(34, 9) NULL,
  received_kwh_max DECIMAL(34, 9) NULL,
  PRIMARY KEY (period_s, node, meter, start)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
