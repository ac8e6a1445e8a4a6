-- Tables of readings are compressed page by page on the way to the disk, to a quarter.
-- A disk that cannot give back a part of a file (without hole punching) keeps them as they were.

-- unless option instantaneous_demand.compress
ALTER TABLE instantaneous_demand
  /*M! PAGE_COMPRESSED = 1, */ /*!80400 COMPRESSION = 'zlib', */ FORCE;

-- unless option current_summation_delivered.compress
ALTER TABLE current_summation_delivered
  /*M! PAGE_COMPRESSED = 1, */ /*!80400 COMPRESSION = 'zlib', */ FORCE;

-- unless option price_cluster.compress
ALTER TABLE price_cluster
  /*M! PAGE_COMPRESSED = 1, */ /*!80400 COMPRESSION = 'zlib', */ FORCE;

-- unless option notification.compress
ALTER TABLE notification
  /*M! PAGE_COMPRESSED = 1, */ /*!80400 COMPRESSION = 'zlib', */ FORCE;
