-- Runs twice in a protected request: before the authorizer is asked, and again when lighttpd goes on
-- after an answer that it takes for a permission. req_env is filled by this server and by the
-- authorizer's Variable- lines only; a client's headers never get there.

local env = lighty.r.req_env

if not env["SPNEGATE_ASKED"] then
  env["SPNEGATE_ASKED"] = "1"
  return 0
end

if env["SPNEGATE"] ~= "granted" or not env["REMOTE_USER"] then
  return 403
end

lighty.r.req_header["X-Remote-User"] = env["REMOTE_USER"]
-- The ticket was for this server; what lies behind it has no use for it.
lighty.r.req_header["Authorization"] = nil
return 0
