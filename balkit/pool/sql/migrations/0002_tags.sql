-- Names of versions. A name that is given again moves; the rows before stay.

CREATE TABLE tags (name VARCHAR NOT NULL, version BIGINT NOT NULL, added_in BIGINT NOT NULL);
