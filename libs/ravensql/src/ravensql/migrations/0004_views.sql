-- What people read.  The meter of an old row is the one of its run.

CREATE OR REPLACE SQL SECURITY INVOKER VIEW demand AS
SELECT
  d.time,
  COALESCE(d.meter, (SELECT MAX(r.meter_id) FROM run_info AS r WHERE r.hash = d.hash)) AS meter,
  d.demand_kw,
  d.run,
  d.hash,
  d.seq,
  d.received,
  d.node
FROM instantaneous_demand AS d
WHERE NOT d.placeholder;

CREATE OR REPLACE SQL SECURITY INVOKER VIEW energy AS
SELECT time, meter, delivered_kwh, received_kwh, run, hash, seq, received, node
FROM current_summation_delivered;
