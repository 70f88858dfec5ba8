# Ends processes of a container: those with the mark in their environment, those below them, and those that are known.
# Arguments: the mark; a signal or nothing; the known ones, as PID:START. Prints those that are there, each as PID:START.
# Only what a shell has built in: a container may have nothing else.
mark=$1 signal=$2
shift 2
known=" $* " all='' found='' ids=' '

# The text of a file, without line breaks and the zero bytes that `read` drops.
text() {
    text=
    while IFS= read -r part || [ -n "$part" ]; do text=$text$part; done
}

for folder in /proc/[0-9]*; do
    text 2>/dev/null <"$folder/stat" || continue
    # The name, in parentheses, may hold anything; after it come the state, the parent, and as the 20th the start.
    # shellcheck disable=SC2086
    set -- ${text##*) }
    case $1 in '' | Z | X) continue ;; esac
    id=${folder#/proc/} parent=$2
    shift 19
    one=$id:$1
    all="$all $one:$parent"
    case $known in
        *" $one "*) found="$found $one" ids="$ids$id " ;;
        *)
            text 2>/dev/null <"$folder/environ"
            case $text in *"RUSUBAN_EXEC=$mark"*) found="$found $one" ids="$ids$id " ;; esac
            ;;
    esac
done

again=yes
while [ -n "$again" ]; do
    again=
    for one in $all; do
        id=${one%%:*}
        case $ids in *" $id "*) continue ;; esac
        case $ids in *" ${one##*:} "*) found="$found ${one%:*}" ids="$ids$id " again=yes ;; esac
    done
done

if [ -n "$signal" ]; then
    for id in $ids; do kill -s "$signal" "$id" 2>/dev/null; done
fi
echo "$found"
