package workload

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// safe is Kubernetes' alphabet for names that it makes up: no vowels, and
// nothing that is taken for a vowel, so that no words come out.
const safe = "bcdfghjklmnpqrstvwxz2456789"

// digest hashes texts; the lengths keep ("a", "bc") and ("ab", "c") apart.
func digest(texts ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, text := range texts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		h.Write(length[:])
		h.Write([]byte(text))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// number is a hash as a number below limit.
func number(limit uint32, texts ...string) uint32 {
	sum := digest(texts...)
	return uint32(binary.BigEndian.Uint64(sum[:8]) % uint64(limit))
}

// letters is a hash as n letters of the safe alphabet.
func letters(n int, texts ...string) string {
	sum := digest(texts...)
	var b strings.Builder
	for _, c := range sum[:n] {
		b.WriteByte(safe[int(c)%len(safe)])
	}
	return b.String()
}

// templateHash names a version of a Deployment's pods.
func templateHash(deployment string, t corev1.PodTemplateSpec) string {
	text, _ := json.Marshal(t) // plain data: there is nothing in it that could fail
	return letters(10, deployment, string(text))
}

// podName is the name of a ReplicaSet's pod: as in Kubernetes, cut so that it
// stays a hostname.
func podName(namespace, replicaSet string, ordinal int) string {
	const room = 63 - 5
	base := replicaSet + "-"
	if len(base) > room {
		base = base[:room]
	}
	return base + letters(5, namespace+"/"+replicaSet, strconv.Itoa(ordinal))
}

// uid is a UUID for an object: another one each time that it is made anew.
func uid(lab, kind, key, previous string, now time.Time) types.UID {
	sum := digest(lab, kind, key, previous, now.UTC().Format(time.RFC3339Nano))
	sum[6] = sum[6]&0x0f | 0x80 // version 8: whatever its maker likes (RFC 9562)
	sum[8] = sum[8]&0x3f | 0x80
	x := hex.EncodeToString(sum[:16])
	return types.UID(x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:])
}

// identityLabels are the labels of a pod that count for its identity: Cilium
// leaves out what only controllers put there.
func identityLabels(labels map[string]string) map[string]string {
	counted := maps.Clone(labels)
	for _, name := range []string{labelTemplateHash, "pod-template-generation", "controller-revision-hash"} {
		delete(counted, name)
	}
	return counted
}

const (
	firstIdentity = 256
	lastIdentity  = 65535
)

// identityKey writes a set of labels as Cilium does.
func identityKey(p *corev1.Pod) string {
	counted := identityLabels(p.Labels)
	list := make([]string, 0, len(counted)+1)
	for name, value := range counted {
		list = append(list, "k8s:"+name+"="+value+";")
	}
	list = append(list, "k8s:io.kubernetes.pod.namespace="+p.Namespace+";")
	slices.Sort(list)
	return strings.Join(list, "")
}

// identify gives each set of labels a number. Numbers start from a hash, so that
// they are the same on other machines and look like Cilium's.
func (s *Set) identify() error {
	taken := make(map[uint32]bool, len(s.Identities))
	for _, n := range s.Identities {
		taken[n] = true
	}
	const size = lastIdentity - firstIdentity + 1
	for i := range s.Pods {
		key := identityKey(&s.Pods[i])
		if _, ok := s.Identities[key]; ok {
			continue
		}
		start := number(size, key)
		n, ok := probe(start, size, func(n uint32) bool { return !taken[firstIdentity+n] })
		if !ok {
			return fmt.Errorf("identity of Pod %s: all %d numbers are taken", keyOf(&s.Pods[i]), size)
		}
		taken[firstIdentity+n] = true
		s.Identities[key] = firstIdentity + n
	}
	return nil
}

// probe returns the first number that is free, from start upwards and around.
func probe(start, size uint32, free func(uint32) bool) (uint32, bool) {
	for i := range size {
		if n := (start + i) % size; free(n) {
			return n, true
		}
	}
	return 0, false
}
