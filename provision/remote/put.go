package remote

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	slashpath "path"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// putScript compares the file with what is wanted, says what it needs, and puts
// what then comes on its standard input in the file's place. What has not come
// whole it throws away, and so it does with what an earlier one left that was
// killed. Its arguments: path, directory, base name, mode in octal, size, SHA-256.
const putScript = `set -eu
path=$1 dir=$2 base=$3 mode=$4 size=$5 sum=$6
digest() { set -- $(sha256sum <"$1"); echo "$1"; }
if [ -d "$path" ] && [ ! -L "$path" ]; then echo "it is a directory" >&2; exit 1; fi
if [ -f "$path" ] && [ ! -L "$path" ]; then
	set -- $(stat -c '%a %s' "$path")
	if [ "$2" = "$size" ] && [ "$(digest "$path")" = "$sum" ]; then
		if [ "$1" = "$mode" ]; then echo same; exit 0; fi
		chmod "$mode" "$path"
		echo mode
		exit 0
	fi
fi
[ -d "$dir" ] || mkdir -p "$dir"
rm -f "$dir/.$base.labctl."????????
new=$(mktemp "$dir/.$base.labctl.XXXXXXXX")
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM PIPE
if command -v gzip >/dev/null; then echo gzip; else echo plain; fi
read -r how
if [ "$how" = gzip ]; then gzip -dc >"$new"; else cat >"$new"; fi
[ "$(digest "$new")" = "$sum" ] || { echo "what arrived is not what was sent" >&2; exit 1; }
chmod "$mode" "$new"
sync "$new" 2>/dev/null || sync
mv -fT "$new" "$path"
echo done`

// compressFrom is the size from which compressing saves more time than it takes.
const compressFrom = 64 << 10

// packetSize is what sshd takes in one packet.
const packetSize = 32 << 10

// Put writes a file on the node, as root's, where its content or its mode (the
// permission bits) differ, and says whether it did. Missing directories are made.
// The path is absolute; a symbolic link at its end is replaced. Whatever happens,
// the file is the old or the new one, whole.
func (c *Client) Put(ctx context.Context, file provision.File) (changed bool, err error) {
	if !slashpath.IsAbs(file.Path) || strings.HasSuffix(file.Path, "/") {
		return false, fmt.Errorf("%s: put %s: %w: want an absolute path", c.config.Node, file.Path, fs.ErrInvalid)
	}
	file.Path = slashpath.Clean(file.Path)
	sum := file.SHA256
	if sum == "" {
		hashed := sha256.Sum256(file.Content)
		sum = hex.EncodeToString(hashed[:])
	}
	unlock, err := c.lockFile(ctx, file.Path)
	if err != nil {
		return false, err
	}
	defer unlock()
	in, feed := io.Pipe()
	defer in.Close()
	talk := &dialog{content: file.Content, feed: feed}
	var said tail
	err = c.Run(ctx, provision.Command{
		Argv: []string{"sh", "-c", putScript, "sh", file.Path, slashpath.Dir(file.Path), slashpath.Base(file.Path),
			strconv.FormatUint(uint64(file.Mode.Perm()), 8), strconv.Itoa(len(file.Content)), sum},
		Stdin: in, Stdout: talk, Stderr: &said,
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return false, err
	case err != nil && said.String() != "":
		return false, fmt.Errorf("%s: put %s: %s (%w)", c.config.Node, file.Path, said.String(), err)
	case err != nil:
		return false, fmt.Errorf("%s: put %s: %w", c.config.Node, file.Path, err)
	}
	return talk.last != "same", nil
}

// lockFile keeps two writers of one file apart: the second finds the file as the
// first has left it.
func (c *Client) lockFile(ctx context.Context, path string) (unlock func(), err error) {
	c.mu.Lock()
	lock := c.puts[path]
	if lock == nil {
		lock = make(chan struct{}, 1)
		c.puts[path] = lock
	}
	c.mu.Unlock()
	if err := take(ctx, lock); err != nil {
		return nil, err
	}
	return func() { <-lock }, nil
}

// dialog answers the lines of putScript.
type dialog struct {
	content []byte
	feed    *io.PipeWriter
	line    []byte
	last    string
}

func (d *dialog) Write(p []byte) (int, error) {
	d.line = append(d.line, p...)
	for {
		line, rest, whole := bytes.Cut(d.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		d.last, d.line = string(line), rest
		switch d.last {
		case "gzip", "plain":
			go d.send(d.last == "gzip" && len(d.content) >= compressFrom)
		case "same", "mode":
			d.feed.Close()
		}
	}
}

// send says how the content comes, and sends it.
func (d *dialog) send(compress bool) {
	how := "plain\n"
	if compress {
		how = "gzip\n"
	}
	_, err := io.WriteString(d.feed, how)
	if err == nil && compress {
		err = d.compressed()
	} else if err == nil {
		_, err = d.feed.Write(d.content)
	}
	d.feed.CloseWithError(err)
}

// compressed sends the content in few large packets. The compressor writes some
// hundred bytes at a time, and an emulated machine needs milliseconds for each packet.
func (d *dialog) compressed() error {
	packets := bufio.NewWriterSize(d.feed, packetSize)
	// The fastest level: a lab's network is faster than its machines.
	z, err := gzip.NewWriterLevel(packets, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := z.Write(d.content); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return packets.Flush()
}
