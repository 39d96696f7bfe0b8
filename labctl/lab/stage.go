package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/check"
	"github.com/native-routing/labctl/labctl/difference"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// ErrNoHistory is an undo in a lab that was in no other stage before.
var ErrNoHistory = errors.New("there is no stage to go back to")

// StageReport is what entering a stage did.
type StageReport struct {
	Lab   string `json:"lab"`
	Stage string `json:"stage"`
	// From is the stage that the lab was in.
	From string `json:"from,omitempty"`
	// Teaches is what the stage is for, in the topology's words.
	Description string `json:"description,omitempty"`
	Teaches     string `json:"teaches,omitempty"`
	// Differences are between the nodes' own tables before and after.
	Differences []difference.Difference `json:"differences"`
	Changes     []provision.Change      `json:"changes"`
	Refused     []Refusal               `json:"refused,omitempty"`
	Took        time.Duration           `json:"tookNanoseconds"`
	// Verification is absent where none was asked for.
	Verification *check.Report `json:"verification,omitempty"`
}

// Enter brings the lab into a stage of the topology that it was brought up
// from. What is asked for is written down before the first change: cut short at
// any moment, the lab is in the old stage or in the new one, and up finishes it.
func (l *Lab) Enter(ctx context.Context, stage string) (StageReport, error) {
	return l.move(ctx, func(saved Saved) (Saved, error) {
		if _, err := saved.Topology.Stage(stage); err != nil {
			return saved, err
		}
		return saved.enter(stage), nil
	})
}

// Undo brings the lab back into the stage that it was in before; again, into the
// one before that. ErrNoHistory where it was in no other.
func (l *Lab) Undo(ctx context.Context) (StageReport, error) {
	return l.move(ctx, func(saved Saved) (Saved, error) {
		back, ok := saved.back()
		if !ok {
			return saved, fmt.Errorf("%w: lab %s has been in stage %s since it came up (labctl stage NAME enters another)", ErrNoHistory, l.Name, saved.Stage)
		}
		return back, nil
	})
}

// move brings the lab from what is asked for to what to makes of it.
func (l *Lab) move(ctx context.Context, to func(Saved) (Saved, error)) (StageReport, error) {
	start := time.Now()
	unlock, err := l.lock(ctx)
	if err != nil {
		return StageReport{}, err
	}
	defer unlock()
	was, err := l.Store.Load(l.Name)
	if err != nil {
		return StageReport{}, err
	}
	saved, err := to(was)
	if err != nil {
		return StageReport{}, err
	}
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return StageReport{}, err
	}
	stage, _ := staged.Stages.Get(saved.Stage)
	report := StageReport{Lab: l.Name, Stage: saved.Stage, From: was.Stage, Description: stage.Description, Teaches: stage.Teaches}
	u := l.newUp(staged, saved)
	defer u.agents.Close()
	report.Differences, err = u.compared(ctx, func() error {
		if err := l.Store.Save(l.Name, saved); err != nil {
			return err
		}
		return u.carryOut(ctx, u.tuning())
	})
	report.Changes, report.Refused, report.Took = u.report.Changes, u.report.Refused, time.Since(start)
	return report, err
}

// tuning are the steps of up that bring nodes which run in line with a stage.
func (u *up) tuning() []step {
	return []step{
		{name: "links", do: u.links},
		{name: "state", do: u.sendStates},
		{name: "settle", do: u.settle, told: u.standing},
	}
}

// compared says what work changed in the nodes' tables, in the order of the file.
// Nothing is begun where a node cannot be looked at.
func (u *up) compared(ctx context.Context, work func() error) ([]difference.Difference, error) {
	before, err := u.looks(ctx)
	if err != nil {
		return nil, err
	}
	if err := work(); err != nil {
		return nil, err
	}
	after, err := u.looks(ctx)
	if err != nil {
		return nil, err
	}
	found := []difference.Difference{}
	for _, node := range u.topology.Nodes.Names() {
		found = append(found, difference.Between(node, before[node], after[node])...)
	}
	return found, nil
}

// looks asks every node's agent for its tables.
func (u *up) looks(ctx context.Context) (map[string]difference.Look, error) {
	var mu sync.Mutex
	looks := make(map[string]difference.Look, len(u.topology.Nodes))
	return looks, u.each(ctx, func(ctx context.Context, node string) ([]provision.Change, error) {
		tables, err := call(ctx, u.agents, node, api.GetTables, api.None{})
		if err != nil {
			return nil, err
		}
		maps, err := call(ctx, u.agents, node, api.GetMaps, api.None{})
		mu.Lock()
		defer mu.Unlock()
		looks[node] = difference.Look{Tables: tables, Maps: maps}
		return nil, err
	})
}

// StageList is a lab's stages, in the topology's order.
type StageList struct {
	Lab string `json:"lab"`
	// Source is the file, or the name of a shipped topology.
	Source string `json:"source"`
	// Stage is the one that the lab is in; empty where it is not up.
	Stage   string      `json:"stage,omitempty"`
	History []string    `json:"history,omitempty"`
	Stages  []StageInfo `json:"stages"`
}

// StageInfo is one stage.
type StageInfo struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Teaches     string `json:"teaches,omitempty"`
	// Current says that the lab is in it.
	Current bool `json:"current,omitempty"`
}

// Stages lists the stages of a topology that is up nowhere.
func Stages(t *topo.Topology, source string) StageList {
	list := StageList{Lab: t.Metadata.Name, Source: source, Stages: []StageInfo{}}
	for name, stage := range t.Stages.All() {
		list.Stages = append(list.Stages, StageInfo{Name: name, Description: stage.Description, Teaches: stage.Teaches})
	}
	return list
}

// Stages lists the stages of a lab that was brought up, and where it is.
func (s Saved) Stages() StageList {
	list := Stages(s.Topology, s.Source)
	list.Stage, list.History = s.Stage, s.History
	for i := range list.Stages {
		list.Stages[i].Current = list.Stages[i].Name == s.Stage
	}
	return list
}
