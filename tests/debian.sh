# Sourced by what makes another Debian, in a folder of its own, beside this system.

# needs_root NAME: end unless that can be done.
needs_root() {
  [ "$(id -u)" = 0 ] || { echo "$1: only root can make and enter another system" >&2; exit 1; }
}

# needs PROGRAM/PACKAGE...: install Debian's packages whose programs are missing.
needs() {
  local one
  export PATH="$PATH:/usr/sbin"
  for one in "$@"; do
    command -v "${one%/*}" >/dev/null || {
      echo "installing Debian's package ${one#*/}" >&2
      apt-get update -qq && apt-get install -y -qq --no-install-recommends "${one#*/}" >/dev/null
    }
  done
}

# mirror: print where this system has Debian's packages from.
mirror() {
  local ask=(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian')
  [ -n "$("${ask[@]}")" ] || apt-get update -qq
  "${ask[@]}" | head -1
}

# debian RELEASE FOLDER PACKAGES [OPTION...]: make a small one, with packages that commas divide.
debian() {
  local release="$1" folder="$2" packages="$3" said
  shift 3
  needs debootstrap/debootstrap
  rm -rf --one-file-system "$folder"
  said="$(debootstrap "$@" --variant=minbase --include="$packages" "$release" "$folder" "$(mirror)" 2>&1)" || {
    tail -5 <<<"$said" >&2
    exit 1
  }
}

# unpacked RELEASE ARCH FOLDER PACKAGES: one for any processor, none of whose programs was run: its
# packages are unpacked and not set up, which an emulated one takes half an hour for.
unpacked() {
  local package
  debian "$1" "$3" "$4" --foreign --arch="$2"
  for package in "$3"/var/cache/apt/archives/*.deb; do dpkg-deb --extract "$package" "$3"; done
  rm -rf "$3"/var/cache/apt/archives "$3"/debootstrap
}
