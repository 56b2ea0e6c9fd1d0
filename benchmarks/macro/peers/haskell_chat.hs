{-# LANGUAGE OverloadedStrings #-}

-- | websockets for Haskell: the clients in one MVar, each message sent to all of them by the thread that received it.
module Main (main) where

import Control.Concurrent (MVar, forkIO, modifyMVar, modifyMVar_, myThreadId, newMVar, withMVar)
import Control.Exception (SomeException, bracket, catch, finally, throwTo)
import Control.Monad (forM_, forever, void)
import qualified Data.IntMap.Strict as IntMap
import Network.Socket
import qualified Network.WebSockets as WS
import System.Environment (getArgs)
import System.Exit (ExitCode (ExitSuccess))
import System.IO (hFlush, stdout)
import System.Posix.Signals (Handler (Catch), installHandler, sigTERM)

data Room = Room {nextKey :: !Int, members :: !(IntMap.IntMap WS.Connection)}

join :: MVar Room -> WS.Connection -> IO Int
join room connection = modifyMVar room $ \(Room key clients) ->
  pure (Room (key + 1) (IntMap.insert key connection clients), key)

leave :: MVar Room -> Int -> IO ()
leave room key = modifyMVar_ room $ \r -> pure r {members = IntMap.delete key (members r)}

-- | Sent while the room is held: every client then sees the messages in the same order.
broadcast :: MVar Room -> WS.DataMessage -> IO ()
broadcast room message = withMVar room $ \r ->
  forM_ (members r) $ \connection -> WS.sendDataMessage connection message `catch` gone
  where
    -- The thread that reads from this client notices as well, and takes it out of the room.
    gone :: SomeException -> IO ()
    gone _ = pure ()

chat :: MVar Room -> Socket -> IO ()
chat room client = serve `catch` ended
  where
    serve = do
      pending <- WS.makePendingConnection client options
      connection <- WS.acceptRequest pending
      key <- join room connection
      forever (WS.receiveDataMessage connection >>= broadcast room . unparsed) `finally` leave room key
    ended :: SomeException -> IO ()
    ended _ = pure ()
    options =
      WS.defaultConnectionOptions
        { WS.connectionCompressionOptions = WS.NoCompression,
          WS.connectionMessageDataSizeLimit = WS.SizeLimit 1048576
        }

-- | Drops the decoded form that a received text message may carry: it would be encoded again for every receiver.
unparsed :: WS.DataMessage -> WS.DataMessage
unparsed (WS.Text bytes _) = WS.Text bytes Nothing
unparsed message = message

main :: IO ()
main = do
  arguments <- getArgs
  let port = case arguments of
        (value : _) -> read value
        [] -> 0
  room <- newMVar (Room 0 IntMap.empty)
  thread <- myThreadId
  void $ installHandler sigTERM (Catch (throwTo thread ExitSuccess)) Nothing
  bracket (socket AF_INET Stream defaultProtocol) close $ \listener -> do
    setSocketOption listener ReuseAddr 1
    bind listener (SockAddrInet port (tupleToHostAddress (127, 0, 0, 1)))
    listen listener 65535
    actual <- socketPort listener
    putStrLn ("listening 127.0.0.1 " ++ show actual)
    hFlush stdout
    forever $ do
      (client, _) <- accept listener
      setSocketOption client NoDelay 1
      forkIO (chat room client `finally` close client)
