package manifest

import "reflect"

// verdict is what a lab does with a field.
type verdict int

const (
	honoured verdict = iota
	// unheeded changes nothing, and nothing that a student sees depends on it.
	unheeded
	// refused would change what a student sees, if it were honoured.
	refused
	// byServer is what an API server writes and people copy: it never means anything.
	byServer
)

// rule is the verdict on one field. The text says what the lab does instead, or
// why it refuses; only what is refused has a cure.
type rule struct {
	verdict    verdict
	text, cure string
}

var yes = rule{}

func no(text string) rule          { return rule{unheeded, text, ""} }
func never(text, cure string) rule { return rule{refused, text, cure} }

// ruleOf is the rule for a field of one of Kubernetes' types. What no rule names
// is said to change nothing: a new version of Kubernetes cannot add a field that
// would be passed over in silence.
func ruleOf(t reflect.Type, name string) rule {
	if r, ok := rules[t.Name()][name]; ok {
		return r
	}
	return no("the lab does not honour it, and it changes nothing")
}

var server = rule{verdict: byServer}

const (
	takeOut    = "take it out"
	noSchedule = "the lab places pods by nodeName, nodeSelector and required podAntiAffinity only"
)

// rules is the list of what is honoured, and of what is known not to be, by the
// names of Kubernetes' types and of their fields.
var rules = map[string]map[string]rule{
	"Deployment": {"apiVersion": yes, "kind": yes, "metadata": yes, "spec": yes, "status": server},
	"Pod":        {"apiVersion": yes, "kind": yes, "metadata": yes, "spec": yes, "status": server},
	"Service":    {"apiVersion": yes, "kind": yes, "metadata": yes, "spec": yes, "status": server},
	"Namespace": {
		"apiVersion": yes, "kind": yes, "metadata": yes, "status": server,
		"spec": no("the lab knows no finalizers"),
	},
	"ObjectMeta": {
		"name": yes, "namespace": yes, "labels": yes, "annotations": yes,
		"generateName":      never("the lab makes no names up", "write name: instead"),
		"creationTimestamp": server, "uid": server, "resourceVersion": server, "generation": server,
		"managedFields": server, "selfLink": server,
		"ownerReferences":            no("the lab removes owned objects itself"),
		"finalizers":                 no("the lab knows no finalizers"),
		"deletionTimestamp":          server,
		"deletionGracePeriodSeconds": server,
	},
	"DeploymentSpec": {
		"replicas": yes, "selector": yes, "template": yes,
		"strategy":                no("a changed template replaces all pods at once"),
		"minReadySeconds":         no("a changed template replaces all pods at once"),
		"revisionHistoryLimit":    no("the lab keeps no history"),
		"progressDeadlineSeconds": no("a changed template replaces all pods at once"),
		"paused":                  never("the lab cannot hold a rollout back", takeOut),
	},
	"LabelSelector":            {"matchLabels": yes, "matchExpressions": yes},
	"LabelSelectorRequirement": {"key": yes, "operator": yes, "values": yes},
	"PodTemplateSpec":          {"metadata": yes, "spec": yes},
	"PodSpec":                  podSpecRules,
	"Affinity": {
		"nodeAffinity": never(noSchedule, "use nodeSelector: {kubernetes.io/hostname: NODE}"),
		"podAffinity":  never(noSchedule, "use nodeName"),
		// What it prefers, the lab does anyway.
		"podAntiAffinity": yes,
	},
	"PodAntiAffinity": {
		"requiredDuringSchedulingIgnoredDuringExecution":  yes,
		"preferredDuringSchedulingIgnoredDuringExecution": no("the lab spreads pods evenly anyway"),
	},
	"PodAffinityTerm": {
		"labelSelector": yes, "namespaces": yes, "topologyKey": yes,
		"namespaceSelector": never("the lab's namespaces have no labels to select by", "list them in namespaces"),
		"matchLabelKeys":    never("the lab does not honour it", "use labelSelector"),
		"mismatchLabelKeys": never("the lab does not honour it", "use labelSelector"),
	},
	"Container": containerRules,
	"EnvVar":    {"name": yes, "value": yes, "valueFrom": never("the lab has no source for it", "write the value itself")},
	"ContainerPort": {
		"name": yes, "containerPort": yes, "protocol": yes,
		"hostPort": never("the lab opens no port of a pod on its node", "use a Service of type NodePort"),
		"hostIP":   no("it means nothing without hostPort"),
	},
	"Probe": {
		"httpGet": yes, "tcpSocket": yes, "exec": yes,
		"grpc":                never("the lab has no gRPC probe", "use httpGet, tcpSocket or exec"),
		"initialDelaySeconds": yes, "timeoutSeconds": yes, "periodSeconds": yes, "successThreshold": yes, "failureThreshold": yes,
		"terminationGracePeriodSeconds": no("the pod's own terminationGracePeriodSeconds counts"),
	},
	"ExecAction": {"command": yes},
	"HTTPGetAction": {
		"path": yes, "port": yes, "scheme": yes,
		"host":        never("the lab probes the pod's own address only", takeOut),
		"httpHeaders": never("the lab's probe sends no headers of yours", takeOut),
	},
	"TCPSocketAction": {"port": yes, "host": never("the lab probes the pod's own address only", takeOut)},
	"ServiceSpec":     serviceSpecRules,
	"ServicePort": {
		"name": yes, "protocol": yes, "port": yes, "targetPort": yes, "nodePort": yes,
		"appProtocol": no("the lab balances by address and port alone"),
	},
	"SessionAffinityConfig": {"clientIP": yes},
	"ClientIPConfig":        {"timeoutSeconds": yes},
}

var podSpecRules = map[string]rule{
	"containers": yes, "restartPolicy": yes, "terminationGracePeriodSeconds": yes, "dnsPolicy": yes,
	"nodeSelector": yes, "nodeName": yes, "hostname": yes, "affinity": yes,

	"volumes":               never("the lab mounts nothing in pods", takeOut),
	"initContainers":        never("the lab runs no init containers", takeOut),
	"ephemeralContainers":   never("the lab runs no ephemeral containers", "use labctl exec"),
	"activeDeadlineSeconds": never("the lab ends no pod by a deadline", takeOut),
	"hostNetwork":           never("a pod of the lab always has a network of its own", "take it out, or run the command on the node with labctl exec NODE"),
	"subdomain":             never("the lab's name server has no names for it", takeOut),
	"setHostnameAsFQDN":     never("a pod's hostname is a short one in the lab", takeOut),
	"hostAliases":           never("the lab writes no hosts file for pods", takeOut),
	"dnsConfig":             never("a pod's name server is the cluster's or its node's", "choose by dnsPolicy: ClusterFirst or Default"),
	"readinessGates":        never("nobody would set the condition, and the pod would never be ready", takeOut),
	"schedulingGates":       never("nobody would open the gate, and the pod would never run", takeOut),
	"resourceClaims":        never("the lab has no resources to claim", takeOut),

	"serviceAccountName":           no("the lab has no service accounts"),
	"serviceAccount":               no("the lab has no service accounts"),
	"automountServiceAccountToken": no("the lab has no service accounts"),
	"hostPID":                      no("pods of the lab see the machine's processes anyway"),
	"hostIPC":                      no("pods of the lab share the machine's anyway"),
	"shareProcessNamespace":        no("containers of a pod see each other's processes anyway"),
	"hostUsers":                    no("pods of the lab share the machine's users"),
	"securityContext":              no("containers run as the lab's own user"),
	"imagePullSecrets":             no("the lab pulls no images"),
	"schedulerName":                no("the lab places all pods itself"),
	"tolerations":                  no("the lab's nodes have no taints"),
	"topologySpreadConstraints":    no("the lab spreads pods evenly anyway"),
	"priorityClassName":            no("no pod makes way for another in the lab"),
	"priority":                     no("no pod makes way for another in the lab"),
	"preemptionPolicy":             no("no pod makes way for another in the lab"),
	"runtimeClassName":             no("the lab runs all containers alike"),
	"enableServiceLinks":           no("the lab sets no variables for services"),
	"overhead":                     no("the lab limits no resources"),
	"resources":                    no("the lab limits no resources"),
	"os":                           no("the lab's nodes run Linux"),
}

var containerRules = map[string]rule{
	"name": yes, "image": yes, "command": yes, "args": yes, "workingDir": yes, "ports": yes, "env": yes,
	"livenessProbe": yes, "readinessProbe": yes,

	"envFrom":       never("the lab has no ConfigMaps and Secrets", "write the variables in env"),
	"volumeMounts":  never("the lab mounts nothing in pods", takeOut),
	"volumeDevices": never("the lab mounts nothing in pods", takeOut),
	"lifecycle":     never("the lab runs no hooks", takeOut),
	"startupProbe":  never("the lab has no startup probe", "use readinessProbe with initialDelaySeconds"),
	"restartPolicy": never("the lab honours only the pod's", "use the pod's restartPolicy"),

	"resources":                no("the lab limits no resources"),
	"resizePolicy":             no("the lab limits no resources"),
	"imagePullPolicy":          no("the lab pulls no images"),
	"securityContext":          no("containers run as the lab's own user"),
	"terminationMessagePath":   no("the lab reads no termination message"),
	"terminationMessagePolicy": no("the lab reads no termination message"),
	"stdin":                    no("a container's input is empty; use labctl exec"),
	"stdinOnce":                no("a container's input is empty; use labctl exec"),
	"tty":                      no("a container has no terminal; use labctl exec"),
}

var serviceSpecRules = map[string]rule{
	"ports": yes, "selector": yes, "clusterIP": yes, "clusterIPs": yes, "type": yes, "externalIPs": yes,
	"sessionAffinity": yes, "sessionAffinityConfig": yes, "internalTrafficPolicy": yes, "externalTrafficPolicy": yes,
	"ipFamilies": yes, "ipFamilyPolicy": yes,

	"publishNotReadyAddresses": never("a pod that is not ready is no backend in the lab", takeOut),
	"externalName":             never("the lab resolves no names outside of it", takeOut),

	"loadBalancerIP":                no("the lab has no load balancers"),
	"loadBalancerSourceRanges":      no("the lab has no load balancers"),
	"loadBalancerClass":             no("the lab has no load balancers"),
	"allocateLoadBalancerNodePorts": no("the lab has no load balancers"),
	"healthCheckNodePort":           no("the lab has no load balancers that would ask"),
	"trafficDistribution":           no("the lab prefers no backend"),
}
