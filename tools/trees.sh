# Bare trees of Debian, in which recipes run as on a machine that has nothing: read by tools/fresh and tools/compilers,
# which say what they are for and set `logs`.
#
#   FRESH_DIRECTORY=/var/tmp/execnet-fresh   where the trees are kept for the next time
#   FRESH_MIRROR=...                         of Debian; default: the one that this machine's apt uses
#
# It is for root. Each command runs in mount and PID namespaces of its own, on a layer over the bare tree: nothing stays
# mounted or running, and the tree stays bare. What compilers made is kept (ccache).
#
# Whoever reads this ends with: if [[ ${1:-} == --inside ]]; then inside "${@:2}"; else main "$@"; fi

directory=${FRESH_DIRECTORY:-/var/tmp/execnet-fresh}
source=/srv/execnet # in the trees
program=tools/${0##*/}
table=()
failed=0

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# --- In the namespaces -------------------------------------------------------------------------------

# inside TREE LAYER USER COMMAND: runs a shell command in the tree. LAYER takes what it changes.
inside() {
  local bare=$directory/trees/$1 layer=$directory/layers/$2 user=$3 command=$4
  local root=$layer/root home=/root
  [[ $user == root ]] || home=/home/$user
  mount -t overlay overlay -o "lowerdir=$bare,upperdir=$layer/upper,workdir=$layer/work" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  if [[ -d $root$source ]]; then
    mkdir -p "$root$source/build/ccache" "$directory/ccache/$1"
    chroot "$root" chown "$user:" "$source/build"
    mount --bind "$directory/ccache/$1" "$root$source/build/ccache"
    chroot "$root" chown -R "$user:" "$source/build/ccache"
  fi
  # What leads to packages here leads to them there. Nothing else of this environment is seen.
  local name environment=("HOME=$home" "USER=$user" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
  for name in http_proxy https_proxy no_proxy PIP_INDEX_URL PIP_CERT SSL_CERT_FILE; do
    [[ -z ${!name:-} ]] || environment+=("$name=${!name}")
  done
  nice chroot --userspec="$user:" "$root" env -i "${environment[@]}" sh -c "$command"
}

in_tree() { unshare --mount --pid --fork --kill-child --propagation private "$program" --inside "$@" </dev/null; }

# --- Trees -------------------------------------------------------------------------------------------

prepare() {
  ((EUID == 0)) || fail "only root can make trees and namespaces."
  if ! command -v debootstrap >/dev/null; then
    echo "${0##*/}: installing debootstrap"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap
  fi
  [[ -z $(git status --porcelain) ]] || echo "${0##*/}: there are changes that are not committed; the trees get the last commit"
  mkdir -p "$logs"
}

make_bare() {
  local tree=$1 bare=$directory/trees/$1 mirror
  [[ ! -e $bare/made ]] || return 0
  mirror=${FRESH_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' | head -n 1)}
  [[ -n $mirror ]] || fail "apt knows no mirror of Debian. Name one: FRESH_MIRROR=..."
  echo "${0##*/}: making a bare tree of $tree"
  rm -rf "$bare"
  mkdir -p "$bare"
  debootstrap --variant=minbase --include=git,make,ca-certificates,python3 "$tree" "$bare" "$mirror" >"$logs/$tree.log" 2>&1 ||
    fail "debootstrap of $tree failed, see $logs/$tree.log."
  # How this machine gets at packages: apt's settings, certificates, pip's settings.
  apt-config dump Acquire | grep '^Acquire::' >"$bare/etc/apt/apt.conf.d/90acquire"
  cp /etc/resolv.conf /etc/hosts "$bare/etc/"
  cp /etc/ssl/certs/ca-certificates.crt "$bare/etc/ssl/certs/"
  [[ ! -e /etc/pip.conf ]] || cp /etc/pip.conf "$bare/etc/"
  [[ ! -d /etc/xdg/pip ]] || { mkdir -p "$bare/etc/xdg" && cp -r /etc/xdg/pip "$bare/etc/xdg/"; }
  touch "$bare/made"
}

# A layer with a clone of the last commit.
make_layer() {
  local tree=$1 layer=$2 user=$3
  rm -rf "$directory/layers/$layer"
  mkdir -p "$directory/layers/$layer"/{upper,work,root}
  if [[ $user != root ]]; then
    in_tree "$tree" "$layer" root "useradd --create-home --password '*' $user"
  fi
  git clone -q --no-hardlinks . "$directory/layers/$layer/upper$source"
  git -C "$directory/layers/$layer/upper$source" remote remove origin
  in_tree "$tree" "$layer" root "mkdir -p $source/build && chown -R $user: $source"
}

