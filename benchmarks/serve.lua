-- Random queries, one a request, from the file named by the first argument.
local queries = {}

function init(args)
   for line in io.lines(args[1]) do queries[#queries + 1] = line end
   math.randomseed(tonumber(args[2]) or 0)
end

function request()
   local body = queries[math.random(#queries)]
   return wrk.format("POST", "/match", {["content-type"] = "application/json"}, body)
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "seconds": %.3f, "p50_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f, "failed": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      latency.max / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
