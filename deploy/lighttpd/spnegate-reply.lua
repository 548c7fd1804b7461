-- Runs when the response's header is complete, whoever made it.

local env = lighty.r.req_env

-- A second door behind the one in spnegate-ask.lua: no content without spnegate's proof.
if (env["SPNEGATE"] ~= "granted" or not env["REMOTE_USER"]) and lighty.r.req_item.http_status < 300 then
  lighty.r.resp_body.set("")
  return 403
end

if env["NEGOTIATE_REPLY"] then
  lighty.r.resp_header["WWW-Authenticate"] = env["NEGOTIATE_REPLY"]
end
return 0
