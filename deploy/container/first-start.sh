# What docker-compose.yml's databases run in their data folder before they start; it sets `there`,
# which is empty before a first start.
#
# The images take what a first start that was cut off has left for a whole database.  So a first start
# is marked until the image has run the files of accounts, of which the last, made.sh, takes the mark
# away.  Where the mark is left no service could write, and all begins anew.
if [ -e .being-made ]; then
  echo "the first start was cut off: it begins anew"
  find . -mindepth 1 ! -name .being-made -delete
fi
there="$(ls)"
if [ -z "$there" ] && [ -e /docker-entrypoint-initdb.d/made.sh ]; then
  touch .being-made
  sync .
fi
